"""The modules of the book's `common` package over compiled kernels."""
