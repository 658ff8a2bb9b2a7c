"""Models: process, parametrization and network joined into what samplers and objectives call; guidance around
them.
"""
