"""`fastdino demo`: a whole run on pictures that come with the packages."""
