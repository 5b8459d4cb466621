"""Rooms: a class answers a lesson's questions by phone, and sees what all have said."""
