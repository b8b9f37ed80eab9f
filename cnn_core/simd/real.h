/* All kernels for one element type. */
#include "vector.h"
#include "product.h"
#include "sparse.h"
#include "pairs.h"
#include "elementwise.h"
#include "images.h"
#include "winograd.h"
#include "updates.h"
