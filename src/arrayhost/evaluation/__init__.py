"""The one evaluator: an operation and its arguments to a value or a view; called in client and host alike."""
