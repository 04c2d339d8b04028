"""One model as data: fields, sizes, layers."""
