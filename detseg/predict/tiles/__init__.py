"""Large images in overlapping tiles: how they are cut, and how label maps and objects of tiles become one."""
