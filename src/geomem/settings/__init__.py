"""Settings: what the configuration is made of, and what each job reads of it."""
