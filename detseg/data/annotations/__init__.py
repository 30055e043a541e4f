"""What a data set states, without any file format: images, objects, regions, classes, and issues with them."""
