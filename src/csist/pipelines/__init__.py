"""Whole systems around a method that need packages of other licences; the core imports none of this."""
