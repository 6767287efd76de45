"""The code of users in threads and tasks, and objects that a process makes only once."""
