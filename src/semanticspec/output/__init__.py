"""What every command shares: atomic files, journals, progress, tables and report pages."""
