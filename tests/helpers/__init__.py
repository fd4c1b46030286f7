"""What tests of several rooms make: files, volumes, networks, recipes."""
