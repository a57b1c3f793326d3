"""Choose class weights with which the labels of a sample have given volume fractions."""
