"""Tests of the methods that sample once, with layers changed."""
