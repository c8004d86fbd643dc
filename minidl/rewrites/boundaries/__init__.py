"""Arrays that begin on a boundary, so that another library can share their memory, for backends whose own library has no word for it."""
