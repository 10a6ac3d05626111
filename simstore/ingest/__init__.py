"""Taking data sets into a store: run again, it goes on where it was."""
