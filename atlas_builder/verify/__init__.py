"""A second reading of a model, to hold a published atlas against."""
