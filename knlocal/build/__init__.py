"""Source folders to something that runs."""
