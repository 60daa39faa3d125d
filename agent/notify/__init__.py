"""Telling people outside the machine what matters: what is told, when, and how it is sent."""
