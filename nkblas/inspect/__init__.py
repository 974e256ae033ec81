"""Tools for users: explain, record and report products, tune plans, show the configuration."""
