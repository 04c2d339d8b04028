"""What is shown of a model or a checkpoint: rows and text, from what other rooms have worked out."""
