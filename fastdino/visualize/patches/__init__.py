"""What single patches look like to a vision transformer: foreground and parts, and what matches in another picture."""
