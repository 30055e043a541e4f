"""Several predictions of an image made into one: by several models, and of the image flipped and scaled."""
