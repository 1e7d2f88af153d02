"""A scene (object, colour, background, seed) and an image size come in; an antialiased RGB image goes out.

Rendering is resolution independent: shapes are signed distance functions in units of the short side.
"""
