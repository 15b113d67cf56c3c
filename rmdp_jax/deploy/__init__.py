"""What leaves for elsewhere: the policies of a finished run as files that act without this package."""
