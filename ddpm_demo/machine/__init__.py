"""What the program asks of the computer: devices and cores, files and folders."""
