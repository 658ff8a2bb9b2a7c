from scorefield.cli import command

command()
