"""What a release of nkblas is made and tested with; no part of the package."""
