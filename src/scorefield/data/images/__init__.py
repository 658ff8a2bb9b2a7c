"""From image files to arrays.

`scan` lists the files of a folder, `read` decodes one of any mode and size, `eager` decodes all of them into
one array, `lazy` is the array whose images are decoded when it is indexed, with the decoder of `decode`, and
`unreadable` is the log of those that failed.
"""
