"""What nkblas tells and measures: explain, record, report, tune. Imported at first use."""
