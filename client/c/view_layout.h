// That the views of the C++ client lie in memory as kvasir.h says, so that they are read in place.
// Where this does not compile, a view has changed: kvasir.h then needs a new version of its struct.
#ifndef KVASIR_CLIENT_C_VIEW_LAYOUT_H_
#define KVASIR_CLIENT_C_VIEW_LAYOUT_H_

#include <cstddef>
#include <span>

#include "client/c/kvasir.h"
#include "client/view.h"

namespace kvasir {

#define KVASIR_SAME(C, CXX, FIELD)                            \
  static_assert(offsetof(C, FIELD) == offsetof(CXX, FIELD) && \
                sizeof(C::FIELD) == sizeof(CXX::FIELD))
// A span is its pointer and its size, in this order (libstdc++; client_c_test looks at it).
#define KVASIR_SAME_SPAN(C, CXX, FIELD, COUNT)                              \
  static_assert(offsetof(C, FIELD) == offsetof(CXX, FIELD) &&               \
                offsetof(C, COUNT) == offsetof(C, FIELD) + sizeof(void*) && \
                sizeof(CXX::FIELD) == 2 * sizeof(void*))

KVASIR_SAME(kvasir_kept_run, KeptRunView, k);
KVASIR_SAME(kvasir_kept_run, KeptRunView, v);
KVASIR_SAME(kvasir_kept_run, KeptRunView, rows);
KVASIR_SAME(kvasir_kept_run, KeptRunView, k_stride);
KVASIR_SAME(kvasir_kept_run, KeptRunView, v_stride);
KVASIR_SAME(kvasir_kept_run, KeptRunView, query_offset);
KVASIR_SAME(kvasir_kept_run, KeptRunView, query_max);
KVASIR_SAME(kvasir_kept_run, KeptRunView, positions);
KVASIR_SAME(kvasir_kept_run, KeptRunView, tokens);
KVASIR_SAME(kvasir_kept_run, KeptRunView, v_bits);
KVASIR_SAME(kvasir_kept_run, KeptRunView, head_stride);
static_assert(sizeof(kvasir_kept_run) == sizeof(KeptRunView));

KVASIR_SAME(kvasir_record_format, RecordFormat, rows);
KVASIR_SAME(kvasir_record_format, RecordFormat, k_codec);
KVASIR_SAME(kvasir_record_format, RecordFormat, v_codec);
KVASIR_SAME(kvasir_record_format, RecordFormat, k_planes);
KVASIR_SAME(kvasir_record_format, RecordFormat, v_planes);
KVASIR_SAME(kvasir_record_format, RecordFormat, k_bytes);
KVASIR_SAME(kvasir_record_format, RecordFormat, v_bytes);
static_assert(sizeof(kvasir_record_format) == sizeof(RecordFormat));

KVASIR_SAME(kvasir_record, RecordView, k);
KVASIR_SAME(kvasir_record, RecordView, v);
KVASIR_SAME(kvasir_record, RecordView, first_slot);
KVASIR_SAME(kvasir_record, RecordView, rows);
KVASIR_SAME(kvasir_record, RecordView, windowed);
KVASIR_SAME(kvasir_record, RecordView, first_row);
KVASIR_SAME(kvasir_record, RecordView, query_offset);
KVASIR_SAME(kvasir_record, RecordView, query_max);
KVASIR_SAME(kvasir_record, RecordView, positions);
KVASIR_SAME(kvasir_record, RecordView, tokens);
static_assert(sizeof(kvasir_record) == sizeof(RecordView));

KVASIR_SAME(kvasir_recent_block, RecentBlockView, k);
KVASIR_SAME(kvasir_recent_block, RecentBlockView, v);
static_assert(sizeof(kvasir_recent_block) == sizeof(RecentBlockView));

KVASIR_SAME(kvasir_mass, MassView, by_query_head);
KVASIR_SAME(kvasir_mass, MassView, kept);
KVASIR_SAME(kvasir_mass, MassView, recent);
KVASIR_SAME(kvasir_mass, MassView, kept_rows);
KVASIR_SAME(kvasir_mass, MassView, recent_rows);

KVASIR_SAME(kvasir_query_rows, QueryRowsView, data);
KVASIR_SAME(kvasir_query_rows, QueryRowsView, first_row);
KVASIR_SAME(kvasir_query_rows, QueryRowsView, count);
KVASIR_SAME(kvasir_query_rows, QueryRowsView, row_floats);

KVASIR_SAME_SPAN(kvasir_layer_view, LayerView, kept, kept_count);
KVASIR_SAME_SPAN(kvasir_layer_view, LayerView, records, record_count);
KVASIR_SAME(kvasir_layer_view, LayerView, record_format);
KVASIR_SAME(kvasir_layer_view, LayerView, records_from);
KVASIR_SAME_SPAN(kvasir_layer_view, LayerView, recent, recent_count);
KVASIR_SAME(kvasir_layer_view, LayerView, recent_base);
KVASIR_SAME(kvasir_layer_view, LayerView, recent_first);
KVASIR_SAME(kvasir_layer_view, LayerView, window);
KVASIR_SAME_SPAN(kvasir_layer_view, LayerView, sticky, sticky_count);
KVASIR_SAME(kvasir_layer_view, LayerView, slots_per_block);
KVASIR_SAME(kvasir_layer_view, LayerView, k_stride);
KVASIR_SAME(kvasir_layer_view, LayerView, v_stride);
KVASIR_SAME(kvasir_layer_view, LayerView, unrotated);
KVASIR_SAME(kvasir_layer_view, LayerView, far_position);
KVASIR_SAME(kvasir_layer_view, LayerView, mass);
KVASIR_SAME(kvasir_layer_view, LayerView, queries);
static_assert(sizeof(kvasir_layer_view) == sizeof(LayerView));

#undef KVASIR_SAME
#undef KVASIR_SAME_SPAN

}  // namespace kvasir

#endif  // KVASIR_CLIENT_C_VIEW_LAYOUT_H_
