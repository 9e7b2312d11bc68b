"""The gateway knows what it sent: a microphone that returns it is not the user."""
