"""The command line: `dlm VERB`."""
