"""Tool execution: the model calls tools, reads their results, and answers."""
