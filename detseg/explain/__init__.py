"""Why a network finds what it finds: the pictures that it makes of an image, and what it looked at."""
