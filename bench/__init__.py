"""Speed and memory, as ratios to the plain path measured in the same run: `make bench`."""
