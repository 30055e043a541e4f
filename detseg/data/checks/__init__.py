"""What is wrong with a data set, found when it is opened."""
