"""The book's `dataset` package: MNIST."""
