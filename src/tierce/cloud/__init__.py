"""Requests to a service of OpenDAL: whose bucket it is, is for the layers above to know."""
