"""The container's other processes: started in order, kept running, stopped in reverse."""
