"""What lies on disk: run folders, stored samples, latents, picture files."""
