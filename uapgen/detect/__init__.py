"""Does a stream of images carry one common pattern?"""
