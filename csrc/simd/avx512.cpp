// Compiled with flags of its own: nothing here may call inline functions of the standard library, of which the
// linker would keep one copy for all.
#include "vec_avx512.hpp"

#include "kernels.hpp"
#include "registers.inl"
#include "color.inl"
#include "hue.inl"
#include "pixels.inl"
#include "rows.inl"
#include "tables.hpp"

namespace fastdino {
const Kernels kAvx512 = {"avx512",      weigh_rows, box_rows,    blend_solid, blend_luma,  luma,
                          sum, shift_hue,   store_bytes, store_float, store_bfloat};
}
