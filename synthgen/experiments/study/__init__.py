"""Does synthetic help?"""
