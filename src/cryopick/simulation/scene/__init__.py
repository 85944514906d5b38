"""What the electrons meet, in their order: layout, ice, dirt, optics, detector."""
