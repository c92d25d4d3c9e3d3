"""Pure maths of the methods. Imports torch alone."""
