"""The commands; each module has ``register(app)``, and imports what is slow to import when a command runs."""
