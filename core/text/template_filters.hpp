// Jinja's filters and tests, as far as chat templates use them. Internal to the template files of core/text.
#pragma once

#include <string_view>

#include "core/text/template_methods.hpp"

namespace troupe::jinja {

bool is_filter(std::string_view name);
bool is_test(std::string_view name);

// Throw TemplateError for input or arguments of the wrong kind.
Value apply_filter(const std::string& name, const Value& input, const Arguments& arguments, Budget& budget);
bool apply_test(const std::string& name, const Value& input, const Arguments& arguments, Budget& budget);

// object.name and object[key], as Jinja looks them up.
Value attribute_of(const Value& object, const std::string& name, Budget& budget);
Value item_of(const Value& object, const Value& key, Budget& budget);

bool contains(const Value& container, const Value& item, Budget& budget);
// What a for loop goes through. Throws TemplateError for what has no items.
std::vector<Value> items_of(const Value& value, Budget& budget);

}  // namespace troupe::jinja
