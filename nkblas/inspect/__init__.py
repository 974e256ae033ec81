<<<<<<< HEAD
"""What nkblas tells and measures: explain, record, report, tune. Imported at first use."""
=======
"""Tools for users: explain, record and report products, tune plans, show the configuration."""
>>>>>>> 45f523672aaaa7f9524602764837079393f03085
