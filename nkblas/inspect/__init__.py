"""Inspection and measurement: explain, record, report, tune. Imported at first use."""
