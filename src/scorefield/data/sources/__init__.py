"""Where examples come from: folders, archives, the Hugging Face Hub, streams, embedded and toy data."""
