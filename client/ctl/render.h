// What the daemon answers, as text: tables for people, JSON for programs. Pure functions.
#ifndef KVASIR_CLIENT_CTL_RENDER_H_
#define KVASIR_CLIENT_CTL_RENDER_H_

#include <string>

#include "kvasir/v1/admin.pb.h"

namespace kvasir::ctl {

// Protobuf's JSON form with the proto's field names and every field present. 64-bit numbers are
// strings there (exact in every language), bytes are base64.
std::string RenderJson(const google::protobuf::Message& message);

// {"boot_epoch": ..., "tenants": [...]} of the same form.
std::string RenderTenantsJson(const v1::GetStatsResponse& stats);

std::string RenderStats(const v1::GetStatsResponse& stats);
std::string RenderTenants(const v1::GetStatsResponse& stats);
// Pools of devices, and what each tenant has of them; "" where there are none.
std::string RenderDevicePools(const v1::GetStatsResponse& stats);
std::string RenderSequences(const v1::ListSequencesResponse& sequences);
std::string RenderPrefixes(const v1::ListPrefixesResponse& prefixes);
std::string RenderLookups(const v1::ListPrefixLookupsResponse& lookups);
std::string RenderCurves(const v1::GetHitRateCurvesResponse& curves);
std::string RenderTiers(const v1::ListTiersResponse& tiers);
std::string RenderDrain(const v1::DrainPrefixesResponse& response);
// `device_pool`: whose budget was set; "": the host pool's.
std::string RenderBudget(const std::string& tenant, const std::string& device_pool,
                         const v1::SetTenantBudgetResponse& response);
std::string RenderResize(const v1::SetPoolSizeResponse& response);
std::string RenderEvent(const v1::PrefixEvent& event);
std::string RenderJsonLine(const google::protobuf::Message& message);
std::string RenderSnapshots(const v1::ListSnapshotsResponse& snapshots);
std::string RenderPolicies(const v1::ListPoliciesResponse& policies);

// The text of the rows, with what is kept marked: bold in `color`, else in [brackets] (brackets of
// the text itself get a backslash). A dropped token whose text is not known is a dot, a kept one
// <id>. Line breaks of the text are shown as \n and taken.
std::string RenderInspection(const v1::InspectSequenceResponse& inspection, uint32_t layer,
                             bool color);

}  // namespace kvasir::ctl

#endif  // KVASIR_CLIENT_CTL_RENDER_H_
